"""Ready programs: `lpml run NAME` starts one, and each file shows how it is written."""

if __name__ != "lpml.programs":
    raise ImportError("import lpml.programs, not programs: the folder is a part of package lpml")
