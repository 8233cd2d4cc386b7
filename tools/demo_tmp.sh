#!/usr/bin/env bash
# Set up, then show what there is: feature pyramids of photographs, a small Mask R-CNN and a small UPerNet trained on a
# drawn sample dataset, and what the trained network sees. All pictures and numbers end in outputs/demo/index.html.
#
#   bash tools/demo.sh                          under 15 minutes on two CPU cores, after the set-up
#   bash tools/demo.sh --all                    a small DINO and a small Mask2Former too, half an hour more
#   bash tools/demo.sh [--all] --quick [DIR]    the same steps with next to no training, to see that all works
#
# What is done is not done again: an interrupted demo goes on where it was. Delete outputs/demo to begin anew.
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

# With --quick, what the commands are given in addition.
size=() detectron2=() mmseg=() dino=() mask2former=() look=()
out=outputs/demo
steps=13
if [ "${1:-}" = --all ]; then
    steps=17
    shift
fi
case "${1:-}" in
"") ;;
--quick)
    out=${2:-outputs/demo_quick}
    case $out in /*) ;; *) out=$PWD/$out ;; esac
    size=(--train 4 --val 4)
    detectron2=(SOLVER.MAX_ITER 1 SOLVER.IMS_PER_BATCH 2)
    mmseg=(train_cfg.max_iters=1 train_dataloader.batch_size=2)
    dino=(train_cfg.max_epochs=1 default_hooks.checkpoint.interval=1)
    mask2former=("${mmseg[@]}" train_cfg.val_interval=1)
    look=(--fields 1 --max-size 64)
    ;;
*) usage ;;
esac

cd "$repo"
mkdir -p "$out/steps"
# Of libraries to their developers, and of no concern to who watches this.
export PYTHONWARNINGS=ignore
count=0

# step NAME TITLE COMMAND...: run a command, once; the report reads from steps/NAME what it was and how long it took.
step() {
    local note=$out/steps/$1 title=$2 start=$SECONDS
    count=$((count + 1))
    echo
    if [ -e "$note" ]; then
        echo "[$count/$steps] $title: done before"
        return
    fi
    echo "[$count/$steps] $title"
    shift 2
    echo "    python $*"
    "$python" "$@"
    printf '%s\n' "$((SECONDS - start))" "$@" >"$note.unfinished"
    mv "$note.unfinished" "$note"
}

photos=$out/photos
data=$out/sample_dataset
shown=("$data"/images/validation/0000{1,2,3,4}.jpg)

step photos "Photographs" tools/make_sample_photos.py "$photos"
step pyramids "Feature pyramids of FocalNet-T with random weights" tools/extract_features.py "$photos" \
    --variant focalnet_tiny_lrf --plot --out "$out/pyramids"
step dataset "Sample dataset" tools/make_sample_dataset.py "$data" "${size[@]}"

config=configs/detectron2/mask_rcnn_focalnet_sample.yaml
step mask_rcnn "Mask R-CNN by detectron2: training and evaluation, a few minutes" tools/train_net.py --resume \
    --config-file "$config" \
    --train-json "$data/coco/instances_training.json" --train-images "$data/images/training" \
    --val-json "$data/coco/instances_validation.json" --val-images "$data/images/validation" \
    OUTPUT_DIR "$out/mask_rcnn" "${detectron2[@]}"
step mask_rcnn_predictions "What the Mask R-CNN finds" tools/predict.py "$config" "$out/mask_rcnn/model_final.pth" \
    "$data/images/validation" --out "$out/mask_rcnn/predictions"
step mask_rcnn_report "How it learned, and where it is wrong" -m focalnet_backbone report "$out/mask_rcnn" \
    --predictions "$out/mask_rcnn/predictions/predictions.json" --images "$data/images/validation" \
    --annotations "$data/coco/instances_validation.json" --out "$out/mask_rcnn/report.html"

config=configs/mmseg/upernet_focalnet_sample.py
step upernet "UPerNet by mmsegmentation: training, a few minutes" tools/train.py "$config" --resume \
    --work-dir "$out/upernet" --cfg-options train_dataloader.dataset.data_root="$data" \
    val_dataloader.dataset.data_root="$data" "${mmseg[@]}"
weights=$out/upernet/$(basename "$(cat "$out/upernet/last_checkpoint")")
step upernet_test "UPerNet by mmsegmentation: evaluation" tools/test.py "$config" "$weights" \
    --work-dir "$out/upernet/test" --cfg-options test_dataloader.dataset.data_root="$data"
step upernet_predictions "What the UPerNet finds" tools/predict.py "$config" "$weights" "$data/images/validation" \
    --out "$out/upernet/predictions"
step upernet_report "How it learned, and where it is wrong" -m focalnet_backbone report "$out/upernet" \
    --predictions "$out/upernet/predictions" --images "$data/images/validation" \
    --annotations "$data/annotations/validation" --out "$out/upernet/report.html"

step seen "What the UPerNet's backbone sees" tools/visualize.py "$photos/chelsea.png" "$photos/coffee.png" \
    "${shown[0]}" --variant focalnet_tiny_srf --weights "$weights" --out "$out/seen"
step seen_over "The same over the photographs" tools/visualize.py "$photos/chelsea.png" "${shown[0]}" \
    --what modulator --overlay --variant focalnet_tiny_srf --weights "$weights" --out "$out/seen/overlay"
step explore "A page to look around in" -m focalnet_backbone explore "$photos/chelsea.png" \
    --variant focalnet_tiny_srf --weights "$weights" "${look[@]}" --out "$out/explore.html"

if [ $steps = 17 ]; then
    config=configs/mmdet/dino_focalnet_sample.py
    annotations=$data/coco/instances
    step dino "DINO by mmdetection: training and evaluation, ten minutes" tools/train.py "$config" --resume \
        --work-dir "$out/dino" --cfg-options train_dataloader.dataset.data_root="$data" \
        val_dataloader.dataset.data_root="$data" val_evaluator.ann_file="${annotations}_validation.json" "${dino[@]}"
    weights=$out/dino/$(basename "$(cat "$out/dino/last_checkpoint")")
    step dino_predictions "What the DINO finds" tools/predict.py "$config" "$weights" "${shown[@]}" \
        --out "$out/dino/predictions"

    config=configs/mmdet/mask2former_focalnet_sample_panoptic.py
    annotations=$data/coco/panoptic_validation
    step mask2former "Mask2Former by mmdetection, panoptic: training and evaluation, twenty minutes" tools/train.py \
        "$config" --resume --work-dir "$out/mask2former" --cfg-options train_dataloader.dataset.data_root="$data" \
        val_dataloader.dataset.data_root="$data" val_evaluator.ann_file="$annotations.json" \
        val_evaluator.seg_prefix="$annotations/" "${mask2former[@]}"
    weights=$out/mask2former/$(basename "$(cat "$out/mask2former/last_checkpoint")")
    step mask2former_predictions "What the Mask2Former finds" tools/predict.py "$config" "$weights" "${shown[@]}" \
        --out "$out/mask2former/predictions"
fi

"$python" tools/demo_report.py "$out"
