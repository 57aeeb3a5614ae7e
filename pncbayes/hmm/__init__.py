"""The likelihood of a hidden Markov chain that switches inside the bins."""
