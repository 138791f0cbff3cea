"""Every way in which a workload shows who it is, behind one port."""
