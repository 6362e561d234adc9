"""People from rigged characters: glTF files with a skeleton, posed anew and dressed as they come."""
