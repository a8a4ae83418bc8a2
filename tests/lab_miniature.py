"""Settings of a lab in miniature."""

SMALL = [
    "prompts.corpus=grammar", "prompts.chars=30000",
    "oracle={kind: tiny, hidden_size: 16, num_layers: 1, ffn_size: 16}",
    "teacher={kind: tiny, hidden_size: 16, num_layers: 1, ffn_size: 16}",
    "student={kind: tiny, hidden_size: 8, num_layers: 1, ffn_size: 16}",
    "oracle_training={steps: 30, batch_rows: 8, window_tokens: 24, learning_rate: 5.0e-3}",
    "teacher_tuning={epochs: 2, evaluations: 2, batch_rows: 16, learning_rate: 5.0e-3}",
    "student_tuning={epochs: 1, evaluations: 2, batch_rows: 16, learning_rate: 5.0e-3}",
    "oracle_prompts=64", "distillation_prompts=32", "held_out_prompts=24", "proxy_prompts=16", "max_new_tokens=8",
    "max_length=24", "epochs=8", "batch_rows=16", "evaluate_every_epochs=1", "arms=[offline, oracle_as_teacher]",
    "seeds=[0]",
]  # fmt: skip
