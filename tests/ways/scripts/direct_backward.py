"""torch.autograd called by name: one loss, several losses, a weighted vector, gradients by hand."""

import json

import torch
from torch import nn

torch.manual_seed(0)
x, y = torch.randn(32, 4), torch.randn(32, 1)
history = {}


def new(name):
    torch.manual_seed(1)
    kind = type(name, (nn.Sequential,), {})
    model = kind(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    history[name] = []
    return model, torch.optim.SGD(model.parameters(), lr=0.05)


def one(model):
    loss = nn.functional.mse_loss(model(x), y)
    torch.autograd.backward(loss)
    return loss


def several(model):
    output = model(x)
    losses = [nn.functional.mse_loss(output, y), 0.01 * output.abs().mean()]
    torch.autograd.backward(losses)
    return sum(losses)


def vector(model):
    errors = (model(x) - y).square()
    weights = torch.full_like(errors, 1 / len(errors))
    errors.backward(weights)
    return (errors * weights).sum()


def by_hand(model):
    loss = nn.functional.mse_loss(model(x), y)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    for parameter, gradient in zip(model.parameters(), gradients):
        parameter.grad = gradient
    return loss


def penalised(model):
    inputs = x.clone().requires_grad_()
    output = model(inputs)
    (slope,) = torch.autograd.grad(output.sum(), inputs, create_graph=True)
    loss = nn.functional.mse_loss(output, y) + 0.1 * slope.square().mean()
    loss.backward()
    return loss


weights = {}
for compute in (one, several, vector, by_hand, penalised):
    model, optimizer = new(compute.__name__)
    for step in range(4):
        optimizer.zero_grad()
        loss = compute(model)
        optimizer.step()
        history[compute.__name__].append(loss.item())
    weights[compute.__name__] = model.state_dict()

torch.save(weights, "model.pt")
with open("history.json", "w") as file:
    json.dump(history, file)
