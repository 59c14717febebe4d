"""The emoji's evaluation pictures in the layouts of published data sets."""
