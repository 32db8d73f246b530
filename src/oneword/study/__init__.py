"""The paper's quantitative analysis as a grid of jobs: which way to find a word is worth what."""
