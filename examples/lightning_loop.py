"""The same as a LightningModule, on any number of devices: python examples/lightning_loop.py

It needs PyTorch Lightning beside the library: pip install xclr pytorch-lightning
"""

from __future__ import annotations

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from plain_loop import BATCH, STEPS, draw, embed, network, two_views
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from xclr.objective import gather_views, xclr_loss_from_embeddings


class XCLR(pl.LightningModule):
    """A backbone with its projector, trained by X-CLR."""

    def __init__(self, temperature: float = 0.1, target_temperature: float = 0.1) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.model = network()

    def training_step(self, batch: list[Tensor]) -> Tensor:
        """The loss of a batch of pictures and the unit vectors of their captions."""
        pictures, captions = batch
        z = F.normalize(self.model(two_views(pictures)), dim=-1)
        e = captions.repeat(2, 1)
        # the rows of all devices, with their gradient; on a single one they stay as they are
        loss = xclr_loss_from_embeddings(gather_views(z), gather_views(e), **self.hparams)
        if self.global_step == 0 or (self.global_step + 1) % 10 == 0:
            self.print(f"step {self.global_step + 1:>3}  loss {loss.item():.3f}")
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW over all weights."""
        return torch.optim.AdamW(self.parameters(), lr=3e-3)


def main() -> None:
    """Train, and print the loss as it goes."""
    pl.seed_everything(0, verbose=False)
    pictures, captions = draw()
    loader = DataLoader(TensorDataset(pictures, embed(captions)), BATCH, shuffle=True, drop_last=True)
    trainer = pl.Trainer(max_steps=STEPS, logger=False, enable_checkpointing=False, enable_progress_bar=False)
    trainer.fit(XCLR(), loader)


if __name__ == "__main__":
    main()
