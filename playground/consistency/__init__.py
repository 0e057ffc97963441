"""A consistency model of the playground, and ControlNets for both."""
