"""What any program needs: whole files, interruption, one-line errors."""
