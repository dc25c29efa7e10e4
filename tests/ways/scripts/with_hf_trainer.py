"""The Hugging Face Trainer on a tiny BERT made from its configuration: nothing is downloaded."""

import json
import sys

import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

way = sys.argv[1]
set_seed(0)
tokens = torch.randint(4, 50, (48, 12))
labels = (tokens.sum(1) % 2).long()
rows = [{"input_ids": t, "labels": label} for t, label in zip(tokens, labels)]

config = BertConfig(
    vocab_size=50,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=32,
    max_position_embeddings=16,
)
model = BertForSequenceClassification(config)
history = {"lr": []}


class KeepRates(TrainerCallback):
    def on_pre_optimizer_step(self, args, state, control, optimizer=None, **kwargs):
        history["lr"].append(optimizer.param_groups[0]["lr"])


options = {
    "plain": {},
    "accumulated": {"gradient_accumulation_steps": 2, "max_grad_norm": 0.5},
    "bf16": {"bf16": True},
}[way]
arguments = TrainingArguments(
    output_dir="out",
    per_device_train_batch_size=4,
    num_train_epochs=2,
    learning_rate=1e-3,
    logging_steps=1,
    eval_strategy="epoch",
    save_strategy="no",
    report_to="none",
    use_cpu=True,
    disable_tqdm=True,
    seed=0,
    **options,
)
trainer = Trainer(
    model=model,
    args=arguments,
    train_dataset=rows[:32],
    eval_dataset=rows[32:],
    callbacks=[KeepRates()],
)
trainer.train()

log = trainer.state.log_history
history["loss"] = [row["loss"] for row in log if "loss" in row]
history["grad_norm"] = [float(row["grad_norm"]) for row in log if "grad_norm" in row]
history["eval_loss"] = [row["eval_loss"] for row in log if "eval_loss" in row]
torch.save(model.state_dict(), "model.pt")
with open("history.json", "w") as file:
    json.dump(history, file)
