"""Lightning: automatic and manual optimization, accumulation, clipping, validation."""

import json
import logging
import sys
import warnings

import lightning
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
warnings.filterwarnings("ignore")
way = sys.argv[1]
history = {"loss": [], "val_loss": [], "lr": [], "grad_norm": []}


class Classifier(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 2))

    def training_step(self, batch, batch_idx):
        inputs, targets = batch
        loss = nn.functional.cross_entropy(self.net(inputs), targets)
        self.log("train_loss", loss)
        history["loss"].append(loss.item())
        return loss

    def validation_step(self, batch, batch_idx):
        inputs, targets = batch
        loss = nn.functional.cross_entropy(self.net(inputs), targets)
        self.log("val_loss", loss, on_epoch=True)

    def on_validation_epoch_end(self):
        if not self.trainer.sanity_checking:
            history["val_loss"].append(self.trainer.callback_metrics["val_loss"].item())

    def on_before_optimizer_step(self, optimizer):
        norm = nn.utils.get_total_norm([p.grad for p in self.parameters()])
        history["grad_norm"].append(norm.item())
        history["lr"].append(optimizer.param_groups[0]["lr"])

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), lr=1e-2)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
        return [optimizer], [scheduler]


class TwoSides(lightning.LightningModule):
    """An adversarial pair, optimized by hand."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.maker = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8))
        self.judge = nn.Sequential(nn.Linear(8, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1))

    def training_step(self, batch, batch_idx):
        real, _ = batch
        ones, zeros = torch.ones(len(real), 1), torch.zeros(len(real), 1)
        for_maker, for_judge = self.optimizers()
        criterion = nn.functional.binary_cross_entropy_with_logits
        fake = self.maker(torch.randn(len(real), 4))

        judge_loss = (
            criterion(self.judge(real), ones) + criterion(self.judge(fake.detach()), zeros)
        ) / 2
        for_judge.zero_grad()
        self.manual_backward(judge_loss)
        for_judge.step()

        maker_loss = criterion(self.judge(fake), ones)
        for_maker.zero_grad()
        self.manual_backward(maker_loss)
        for_maker.step()
        history["loss"].append(maker_loss.item())
        history.setdefault("judge_loss", []).append(judge_loss.item())

    def configure_optimizers(self):
        return (
            torch.optim.Adam(self.maker.parameters(), lr=1e-3),
            torch.optim.SGD(self.judge.parameters(), lr=1e-2),
        )


lightning.seed_everything(0, verbose=False)
x = torch.randn(96, 8)
y = (x.sum(1) > 0).long()
train = DataLoader(TensorDataset(x[:64], y[:64]), batch_size=8, shuffle=True)
valid = DataLoader(TensorDataset(x[64:], y[64:]), batch_size=8)
options = {
    "validated": {},
    "unvalidated": {"limit_val_batches": 0},
    "accumulated": {"accumulate_grad_batches": 4},
    "clipped": {"gradient_clip_val": 0.1},
    "bf16": {"precision": "bf16-mixed"},
    "manual": {},
}[way]
trainer = lightning.Trainer(
    max_epochs=2,
    accelerator="cpu",
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
    **options,
)
if way == "manual":
    model = TwoSides()
    trainer.fit(model, train)
else:
    model = Classifier()
    trainer.fit(model, train, valid)

torch.save(model.state_dict(), "model.pt")
with open("history.json", "w") as file:
    json.dump(history, file)
