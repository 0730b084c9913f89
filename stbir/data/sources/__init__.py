"""Where pictures come from. A source lists its photos cheaply and reads one picture at a time."""
