//! A client against nodes that do what a script says, over wires in memory.
