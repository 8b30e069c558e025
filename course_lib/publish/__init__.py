"""From the chapters' text to notebooks that are tested and a site that is read.

``chapters`` turns MyST text into notebooks, ``plain`` its Markdown into what any Jupyter shows,
``cache`` keeps what was executed until the code behind it changes, ``nbval_plugin`` lets nbval's one
execution serve the site too, ``sphinx_ext`` is this book's part of Sphinx, ``build`` runs the whole.

Chapter: book/welcome/how_to_use.md
"""
