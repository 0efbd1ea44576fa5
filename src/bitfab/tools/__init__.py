"""One thin adapter per external tool: a typed call in, plain values out."""
