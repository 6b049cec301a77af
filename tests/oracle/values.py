"""What a dimension's values are: usual, mild or harmful, and what each needs of other dimensions."""

USUAL, MILD, HARMFUL = "usual", "mild", "harmful"


class Value:
    """One value of a dimension. `needs` maps a dimension to the values that it may have then.

    A value with `members` is a class of texts or certificates, one of which a world has.
    """

    def __init__(self, kind, needs=None, timed=False, state=False, members=()):
        self.kind, self.needs, self.timed, self.state, self.members = kind, needs or {}, timed, state, tuple(members)


def usual(*names):
    return {name: Value(USUAL) for name in names}


def mild(*names, **more):
    return {name: Value(MILD, **more) for name in names}


def harmful(*names, **more):
    return {name: Value(HARMFUL, **more) for name in names}
