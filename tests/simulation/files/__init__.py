"""Small files of the data sets that are read from --data-dir: a module each, named as that of the data set, whose
`write(folder)` makes them and returns what --data-dir is given."""
