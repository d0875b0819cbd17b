"""The laboratory: the papers' experiments in the pure loop, with real packed bytes both ways.

An experiment is one small file in ``thinwire/lab/experiments/``, which says what is run on what and which figures are
drawn; everything else is here, the same for all. It is fair by rule: a method and its yardstick are run on the same
problems with the same seeds, tuned by the same search until the optimum is interior, and both directions are counted.
"""
