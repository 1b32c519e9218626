"""Training of text models: pairs, fine-tuning of four kinds, distillation to a student."""
