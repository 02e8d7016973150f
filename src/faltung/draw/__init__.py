"""Pictures that the project draws itself, as SVG text."""
