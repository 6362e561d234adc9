"""How well a model does on people whose every side is known.

For each person the model sees view 0 alone (one that was trained with four also gets the latents of the rig's true
other views, an upper bound for what a view model can give, or what its view model makes); its splats are rendered from
the novel views (of scans: the ring around the whole body) and compared with the true pictures, before white.
``front``, ``side`` and ``back`` are the novel views less than 45, between 45 and 135, and more than 135 degrees from
view 0. With fitted bodies the pose and shape come from view 0 as they would from a photograph; how far away the person
stands, which one picture cannot tell, and the camera are taken from the truth, so that the novel views can be compared
at all. Perturbed bodies are true ones with noise on every parameter. Scans whose body is flagged are left out: there
is no truth to go by.
"""
