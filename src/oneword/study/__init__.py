"""The paper's quantitative analysis as a grid of jobs that compares ways to find a word."""
