"""What only `ls3dw head` needs: makes the head file, and fits people's means and the placement of the landmarks."""
