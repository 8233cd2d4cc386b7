#!/usr/bin/env bash
# Set up, then show what there is: feature pyramids of photographs, and a small Mask R-CNN and a small UPerNet
# trained on a drawn sample dataset. Pictures and numbers go to outputs/demo. What is done is not done again.
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
bash "$repo/tools/setup.sh"
tools=$repo/tools
out=$repo/outputs/demo
data=$out/sample_dataset
photos=$data/images/validation

"$python" "$tools/demo_pyramids.py" --out "$out"

[ -d "$data" ] || "$python" "$tools/make_sample_dataset.py" "$data"

echo "Mask R-CNN by detectron2 on the sample dataset: a few minutes on two cores"
config=$repo/configs/detectron2/mask_rcnn_focalnet_sample.yaml
"$python" "$tools/train_net.py" --config-file "$config" --resume \
    --train-json "$data/coco/instances_training.json" --train-images "$data/images/training" \
    --val-json "$data/coco/instances_validation.json" --val-images "$photos" OUTPUT_DIR "$out/mask_rcnn"
"$python" "$tools/predict.py" "$config" "$out/mask_rcnn/model_final.pth" "$photos"/0000[1-4].jpg \
    --out "$out/mask_rcnn/predictions"

echo "UPerNet by mmsegmentation on the sample dataset: a few minutes on two cores"
config=$repo/configs/mmseg/upernet_focalnet_sample.py
"$python" "$tools/train.py" "$config" --resume --work-dir "$out/upernet" --cfg-options \
    train_dataloader.dataset.data_root="$data" val_dataloader.dataset.data_root="$data" \
    test_dataloader.dataset.data_root="$data"
"$python" "$tools/predict.py" "$config" "$(cat "$out/upernet/last_checkpoint")" "$photos"/0000[1-4].jpg \
    --out "$out/upernet/predictions"

echo "Done. Look into $out: pyramid_*.png, mask_rcnn/predictions, upernet/predictions"
