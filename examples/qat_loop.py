"""Quantization-aware training in a loop of one's own, from float weights to a verified 4-bit design; torchrun works."""

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import bitfab as bf
from bitfab import zoo
from bitfab.data import digits

torch.manual_seed(0)
many = dist.is_torchelastic_launched()
if many:
    dist.init_process_group("gloo")  # nccl with one GPU each
data = digits.load()
images, labels = torch.from_numpy(data.train_images), torch.from_numpy(data.train_labels)
qat = bf.prepare(zoo.load("digits"), [images[:256]], bf.Recipe(weights=4, activations=4, observer="mse"))
net = DistributedDataParallel(qat) if many else qat
dataset = TensorDataset(images, labels)
loader = DataLoader(dataset, 64, sampler=DistributedSampler(dataset) if many else None, shuffle=not many)
optimizer = torch.optim.Adam(net.parameters(), 2e-3)
for epoch in range(8):
    if epoch == 6:
        bf.freeze_batch_norm(net)
    for x, y in loader:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()

graph = bf.lower(net.eval(), "digits_w4a4")
if not many or dist.get_rank() == 0:
    codes = bf.run_fast(graph, bf.as_integers(graph, data.test_images))
    print(f"accuracy of the integer graph: {100 * (codes.argmax(1) == data.test_labels).mean():.1f} %")
    report = bf.build(bf.generate(graph, target="ecp5-45k"), data.test_images[:20], "build/qat_loop")
    print(f"{report.verification.mismatches} mismatches, {report.timing.fmax_mhz:.0f} MHz, {report.resources.lut} LUTs")
if many:
    dist.destroy_process_group()
