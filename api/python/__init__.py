"""The Python API: a home folder that loads data frames, evaluates, trains and recommends in this process."""
