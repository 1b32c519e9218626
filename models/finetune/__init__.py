"""Train text models: collect samples, fine-tune four model types, distill a cross-encoder into a student."""
