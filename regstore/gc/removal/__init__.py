"""Removal of what somebody names: tags, revisions with their tags, whole repositories; and nothing else.

It is gc's unlinking (`gc.apply.unlink`) with a plan of another kind: what was named, in place of what a policy drops
and what nothing needs. Blobs, layer links and uploads stay; they are gc's.

named   what was named, from the words of a command line
plan    what goes of it, and why what can't go can't: an image that an index lists which stays, or where something that
        can't be read may list it. The tables are those of `gc.plan.links`
run     one run: look at the repositories named and at no other, plan, apply
"""
