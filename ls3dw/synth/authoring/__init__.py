"""Tools of `ls3dw head`: build the head file, fit people's mean head and the placement of the landmarks."""
