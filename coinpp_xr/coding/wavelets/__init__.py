"""Fields under an RMSE: subbands of a wavelet, every coefficient in the context of others."""
