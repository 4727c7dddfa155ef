"""How a run is carried out: prepared, checked, trained, evaluated, written, loaded."""
