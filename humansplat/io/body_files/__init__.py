"""Body files of other programs, read into one record without executing anything that they hold."""
