"""What a network of the pyramid counts in, for those that run it and those that train it."""

# Inputs: differences of 16 neighbours from the prediction, how far that is from the mean of the
# four nearest, the steps around in two sums, the size that errors are expected to have, the
# latitude, and the steps at twelve neighbours; where there are references, the sum of steps there,
# and differences of five places in each. Then what a pass has in common: which of three it is, how
# many references, and the spacing.
MOST_NEIGHBOURS = 16
AWAY = MOST_NEIGHBOURS
MARKS = AWAY + 5
PAST = MARKS + 12
REFERRED = PAST + 1
# Of references; networks are told of no more.
MOST_SEEN = 2
N_VARYING = REFERRED + MOST_SEEN * 5
N_OF_PASS = 6
N_INPUTS = N_VARYING + N_OF_PASS
# Of all inputs, those that tell whether there is one reference, or two.
REFERENCES = slice(N_VARYING + 3, N_VARYING + 5)
# Inputs and activations are in 1/128, and none is further from zero; weights are in 1/256.
ACTIVATION, LARGEST_ACTIVATION, WEIGHT = 128, 1023, 256
# No sum may reach this.
EXACT = 1 << 24
WIDEST = 128
# Scales of distributions are half of the expected size, times 2^(k / 32).
SCALE_PARTS, LOWEST_SCALE, HIGHEST_SCALE = 32, -6 * 32, 4 * 32
