"""A developer's machine as a part of the cluster: tunnels that bring requests in, and ways out to its Services."""
