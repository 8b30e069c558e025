"""Assignments: released with nbgrader, graded where the student's word is no proof.

The stages, a file each: ``intake`` finds notebooks, ``rebuild`` puts their answers into the master,
``sandbox`` runs them in a locked process (``zygote``, ``jail``, ``child``, ``wire``), ``checks`` judges
what comes back, ``job`` does all this for one submission, ``results`` keeps what came out, ``run``
does it for a class, ``gradebook`` writes the marks, ``feedback``, ``summary`` and ``export`` tell them.
``release`` makes what students get.

Chapter: book/teach/grading.md
"""
