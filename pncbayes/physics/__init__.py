"""What a state emits, how states switch, and the simulator."""
