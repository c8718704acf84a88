"""Layouts: the same network has the same graph in any of them."""

from __future__ import annotations

from tests.frontends.relay_programs import main, ops

NCHW = """
  %0 = nn.conv2d(%x, %w, padding=[1, 1], channels=8, kernel_size=[3, 3]);
  %1 = nn.bias_add(%0, %b);
  %2 = nn.batch_norm(%1, %g, %b, %b, %b);
  %3 = nn.relu(%2.0);
  %4 = nn.max_pool2d(%3, pool_size=[2, 2], strides=[2, 2]);
  %5 = (%4, %4);
  %6 = concatenate(%5, axis=1);
  %7 = mean(%6, axis=[2, 3], keepdims=True);
  %8 = multiply(%6, sigmoid(%7));
  %9 = nn.pad(%8, 0f, pad_width=[[0, 0], [0, 0], [1, 1], [2, 2]]);
  %10 = nn.global_avg_pool2d(%9);
  %11 = nn.batch_flatten(%10);
  nn.dense(%11, %fc, units=5)"""
NHWC = """
  %0 = nn.conv2d(%x, %w, padding=[1, 1], channels=8, kernel_size=[3, 3], data_layout="NHWC", kernel_layout="HWIO");
  %1 = nn.bias_add(%0, %b, axis=3);
  %2 = nn.batch_norm(%1, %g, %b, %b, %b, axis=3);
  %3 = nn.relu(%2.0);
  %4 = nn.max_pool2d(%3, pool_size=[2, 2], strides=[2, 2], layout="NHWC");
  %5 = (%4, %4);
  %6 = concatenate(%5, axis=3);
  %7 = mean(%6, axis=[1, 2], keepdims=True);
  %8 = multiply(%6, sigmoid(%7));
  %9 = nn.pad(%8, 0f, pad_width=[[0, 0], [1, 1], [2, 2], [0, 0]]);
  %10 = nn.global_avg_pool2d(%9, layout="NHWC");
  %11 = nn.batch_flatten(%10);
  nn.dense(%11, %fc, units=5)"""
REST = "%b: Tensor[(8), float32], %g: Tensor[(8), float32], %fc: Tensor[(5, 16), float32]"


def test_nhwc_and_nchw_are_one_network() -> None:
    first = main("%x: Tensor[(1, 4, 8, 8), float32], %w: Tensor[(8, 4, 3, 3), float32], " + REST, NCHW)
    last = main("%x: Tensor[(1, 8, 8, 4), float32], %w: Tensor[(3, 3, 4, 8), float32], " + REST, NHWC)
    assert last.tensors["x"].shape == (1, 4, 8, 8)
    assert ops(first) == ops(last)
    assert first.fingerprint == last.fingerprint


def test_blocked_layouts_are_one_network_too() -> None:
    plain = main(
        "%x: Tensor[(1, 8, 6, 6), float32], %w: Tensor[(16, 8, 3, 3), float32], %b: Tensor[(1, 16, 1, 1), float32]",
        "%0 = nn.conv2d(%x, %w, channels=16, kernel_size=[3, 3]); %1 = add(%0, %b); nn.relu(%1)",
    )
    blocked = main(
        "%x: Tensor[(1, 8, 6, 6), float32], %w: Tensor[(16, 8, 3, 3), float32], %b: Tensor[(1, 16, 1, 1), float32]",
        """%0 = layout_transform(%x, src_layout="NCHW", dst_layout="NCHW4c");
        %1 = layout_transform(%w, src_layout="OIHW", dst_layout="OIHW4i8o");
        %2 = nn.contrib_conv2d_NCHWc(%0, %1, channels=16, kernel_size=[3, 3], data_layout="NCHW4c",
          kernel_layout="OIHW4i8o", out_layout="NCHW8c");
        %3 = layout_transform(%b, src_layout="NCHW", dst_layout="NCHW8c");
        %4 = add(%2, %3); %5 = nn.relu(%4); layout_transform(%5, src_layout="NCHW8c", dst_layout="NCHW")""",
    )
    assert ops(plain) == ops(blocked) == ["Conv", "Add", "Relu"]
    assert plain.fingerprint == blocked.fingerprint


def test_depthwise_weights_of_tensorflow() -> None:
    found = main(
        "%x: Tensor[(1, 8, 8, 4), float32], %w: Tensor[(3, 3, 4, 2), float32]",
        """nn.conv2d(%x, %w, groups=4, channels=8, kernel_size=[3, 3], data_layout="NHWC", kernel_layout="HWOI")""",
    )
    assert ops(found) == ["Conv", "Transpose"]
    assert found.tensors[found.nodes[0].inputs[1]].shape == (8, 1, 3, 3)
    assert found.nodes[0].attrs["group"] == 4
    assert found.tensors[found.outputs[0]].shape == (1, 6, 6, 8)


def test_operators_that_know_no_layout_see_the_programs_order() -> None:
    found = main(
        "%x: Tensor[(1, 8, 8, 4), float32], %w: Tensor[(1, 1, 4, 4), float32]",
        """%0 = nn.conv2d(%x, %w, kernel_size=[1, 1], channels=4, data_layout="NHWC", kernel_layout="HWIO");
        reshape(%0, newshape=[1, 64, 4])""",
    )
    assert ops(found) == ["Conv", "Transpose", "Reshape"]
    assert found.nodes[1].attrs["perm"] == (0, 2, 3, 1)
