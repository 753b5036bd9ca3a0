"""Hostile `.pt` files: pickles by hand, in torch's zip."""

import io
import struct

from hostile_zip import Entry, deflated, write_zip

ZEROS = bytes(64)
STOP, MARK, EMPTY_TUPLE, EMPTY_LIST, EMPTY_DICT, REDUCE, BUILD, BINPERSID = b".", b"(", b")", b"]", b"}", b"R", b"b", b"Q"


def text(value):
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def number(value):
    if isinstance(value, bool):
        return b"\x88" if value else b"\x89"
    if -(1 << 31) <= value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    data = value.to_bytes((value.bit_length() + 8) // 8, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def name(module, attribute):
    return b"c" + f"{module}\n{attribute}\n".encode()


def items(*parts):
    return MARK + b"".join(parts) + b"t"


def numbers(values):
    return items(*(number(v) for v in values))


def storage(key=text("0"), numel=number(16), kind=name("torch", "FloatStorage"), tag=text("storage")):
    return items(tag, kind, key, text("cpu"), numel) + BINPERSID


def tensor(size=(4, 4), stride=(4, 1), offset=0, held=None, rest=b""):
    hooks = name("collections", "OrderedDict") + EMPTY_TUPLE + REDUCE
    return (name("torch._utils", "_rebuild_tensor_v2") + MARK + (held or storage()) + number(offset) + numbers(size) + numbers(stride)
            + b"\x89" + hooks + rest + b"t" + REDUCE)


def state(value, key="w"):
    return EMPTY_DICT + text(key) + value + b"s"


def pickle(body, protocol=2):
    return b"\x80" + bytes([protocol]) + body + STOP


def pt(body, data=ZEROS, protocol=2, more=(), raw=False):
    """torch's zip around a pickle; `raw`: the pickle is complete."""
    made = body if raw else pickle(body, protocol)
    entries = [Entry("archive/data.pkl", made), Entry("archive/byteorder", b"little")]
    entries += [] if data is None else [Entry("archive/data/0", data)]
    return write_zip(*entries, *more, Entry("archive/version", b"3\n"))


def commands(put):
    shell = text("touch /tmp/pwned-by-a-pickle")
    one = MARK + shell + b"t" + REDUCE
    put("reduce_os_system", pt(name("os", "system") + one), "a GLOBAL that is not allowed, called", word="os.system")
    put("reduce_posix_system_protocol_4", pt(b"\x95" + struct.pack("<Q", 12) + text("posix") + text("system") + b"\x93" + one, protocol=4),
        "STACK_GLOBAL, protocol 4, wrong frame length", word="posix")
    put("reduce_eval_in_a_state_dict", pt(state(name("builtins", "eval") + MARK + text("1+1") + b"t" + REDUCE)), "inside a dict", word="builtins.eval")
    put("global_alone", pt(state(name("subprocess", "Popen"))), "named, not called", word="subprocess.Popen")
    put("global_getattr_chain", pt(name("builtins", "getattr") + MARK + name("torch", "FloatStorage") + text("__init__") + b"t" + REDUCE),
        "reaching from an allowed class", word="builtins.getattr")
    put("global_dotted", pt(name("torch", "hub.load_state_dict_from_url") + one), "a path through an allowed module", word="torch.hub")
    put("inst_opcode", pt(MARK + shell + b"ios\nsystem\n"), "INST calls too")
    put("obj_opcode", pt(MARK + name("os", "system") + shell + b"o"), "OBJ calls too", word="os.system")
    put("newobj_forbidden_class", pt(name("torch.nn.modules.linear", "Linear") + EMPTY_TUPLE + b"\x81"), "NEWOBJ", word="Linear")
    put("build_on_forbidden_class", pt(name("torch.nn.modules.linear", "Linear") + EMPTY_TUPLE + b"\x81" + state(number(1)) + BUILD),
        "BUILD sets attributes, or calls __setstate__", word="Linear")
    put("build_on_a_tensor", pt(tensor() + state(number(1), "__class__") + BUILD), "BUILD on what is not an OrderedDict")
    put("reduce_a_string", pt(text("x") + EMPTY_TUPLE + REDUCE), "REDUCE of what is not a class")
    put("reduce_ordered_dict_with_a_callable", pt(name("collections", "OrderedDict") + MARK + name("os", "system") + b"t" + REDUCE),
        "an allowed class with a forbidden argument", word="os.system")
    put("ext_opcode", pt(b"\x82\x01"), "EXT1 names a class by a private number")
    put("default_dict", pt(name("collections", "defaultdict") + MARK + name("os", "system") + b"t" + REDUCE), "calls its argument on a miss")


def memo(put):
    put("memo_list_in_itself", pt(EMPTY_LIST + b"q\x00" + b"h\x00" + b"a"), "a list that holds itself")
    put("memo_dict_in_itself", pt(EMPTY_DICT + b"q\x00" + text("w") + b"h\x00" + b"s"), "a dict that holds itself")
    put("memo_never_set", pt(b"h\x07"), "BINGET of nothing")
    put("memo_index_4_billion", pt(number(1) + b"r\xff\xff\xff\xff"), "LONG_BINPUT: a table that long must not be made", verdict="either")
    # Each list but the last is taken from the stack again, so that only what it grows to is wrong.
    doubling = EMPTY_LIST + b"q\x00" + b"".join(
        b"0" + EMPTY_LIST + b"q" + bytes([i]) + MARK + (b"h" + bytes([i - 1])) * 2 + b"e" for i in range(1, 60))
    put("memo_doubling_60_times", pt(doubling), "2^60 items when copied out", word="copied out")
    put("nested_20000_lists", pt(EMPTY_LIST * 20000 + b"a" * 19999), "recursion, also when dropped")
    put("nested_20000_tuples", pt(EMPTY_TUPLE + b"\x85" * 20000), "recursion, also when dropped")
    put("memo_10000_references_to_a_long_text", pt(text("x" * 5000) + b"q\x000" + EMPTY_LIST + MARK + b"h\x00" * 10000 + b"e"), "50 MB when copied out",
        verdict="either")


def tensors(put):
    bad = lambda label, value, why, data=ZEROS, **more: put(label, pt(state(value), data), why, **more)
    bad("offset_beyond_the_end", tensor(offset=1000), "starts behind its storage")
    bad("offset_leaves_too_few", tensor(offset=1), "ends behind its storage")
    bad("offset_of_an_empty_tensor", tensor(size=(0,), stride=(1,), offset=1 << 62), "2^62 values of 4 bytes before nothing", verdict="either")
    bad("offset_negative", tensor(offset=-1), "starts before its storage")
    bad("stride_negative", tensor(stride=(-4, 1), offset=12), "walks backwards")
    bad("stride_beyond_the_end", tensor(stride=(400, 1)), "ends behind its storage")
    bad("stride_overflows", tensor(stride=(1 << 62, 1)), "3 * 2^62 wraps")
    bad("stride_zero_amplifies", tensor((1 << 20, 1 << 20), (0, 0)), "a 1 KB file that is 4 TiB when copied out")
    bad("size_negative", tensor((-4, 4)), "negative")
    bad("size_overflows", tensor((1 << 40, 1 << 40), (1, 1)), "2^80 values")
    bad("size_is_huge", tensor((1 << 40,), (1,)), "more than its storage")
    bad("size_zero_times_huge", tensor((0, 1 << 62), (1 << 62, 1)), "empty, but the product overflows on the way", verdict="either")
    bad("size_of_text", name("torch._utils", "_rebuild_tensor_v2") + items(storage(), number(0), items(text("4")), items(number(1)), b"\x89", b"N") + REDUCE,
        "not a number")
    bad("size_longer_than_stride", tensor((4, 4), (1,)), "two dimensions, one stride")
    bad("size_of_300_dimensions", tensor((1,) * 300, (1,) * 300), "more dimensions than anyone has", verdict="either")
    bad("size_in_a_1000_bit_number", tensor((1 << 1000,), (1,)), "LONG1 of 126 bytes")
    bad("numel_larger_than_the_data", tensor(held=storage(numel=number(1 << 40))), "the storage says 2^40 values, its entry has 64 bytes")
    bad("numel_smaller_than_the_tensor", tensor(held=storage(numel=number(3))), "the storage says 3 values")
    bad("data_shorter_than_the_storage", tensor(), "10 of 64 bytes", bytes(10))
    bad("data_missing", tensor(), "no entry data/0", None)
    bad("arguments_missing", name("torch._utils", "_rebuild_tensor_v2") + EMPTY_TUPLE + REDUCE, "no arguments")
    bad("storage_is_a_number", tensor(held=number(7)), "no storage")
    bad("persistent_id_leaves_the_archive", tensor(held=storage(text("../../../../etc/passwd"))), "a path as a key")
    bad("persistent_id_absolute", tensor(held=storage(text("/etc/passwd"))), "a path as a key")
    bad("persistent_id_is_the_pickle", tensor(held=storage(text("../data.pkl"))), "the pickle as a tensor")
    bad("persistent_id_too_short", tensor(held=items(text("storage")) + BINPERSID), "one item of five")
    bad("persistent_id_too_long", tensor(held=items(text("storage"), name("torch", "FloatStorage"), text("0"), text("cpu"), number(16), number(0), number(1)) + BINPERSID),
        "seven items", verdict="either")
    bad("persistent_id_other_tag", tensor(held=storage(tag=text("module"))), "not a storage")
    bad("persistent_id_is_text", tensor(held=text("0") + BINPERSID), "not a tuple")
    bad("persistent_id_as_text_opcode", tensor(held=b"P0\n"), "PERSID")
    bad("persistent_id_number_as_key", tensor(held=storage(number(0))), "keys are texts", verdict="either")
    bad("persistent_id_forbidden_class", tensor(held=storage(kind=name("os", "system"))), "not a storage class", word="os.system")
    bad("persistent_id_quantised", tensor(held=storage(kind=name("torch", "QInt8Storage"))), "a type that is not read", word="QInt8Storage")
    bad("same_storage_as_two_types", tensor() + b"0" + tensor(held=storage(kind=name("torch", "DoubleStorage"), numel=number(16))), "64 bytes are 16 floats, not 16 doubles")
    put("duplicate_keys_in_a_dict", pt(EMPTY_DICT + MARK + text("w") + tensor() + text("w") + number(1) + b"u"), "which one?", verdict="either")
    put("nan_payloads", pt(state(tensor()), struct.pack("<16I", *(0x7FC00000 + i for i in range(8)), *(0xFF800001 + i for i in range(8)))),
        "NaN of any payload is data: the consumer's business", verdict="read", holds={"w": [4, 4]})


def machine(put):
    raw = lambda label, body, why, **more: put(label, pt(body, raw=True), why, **more)
    raw("no_stop", b"\x80\x02" + EMPTY_DICT, "the pickle ends without STOP")
    raw("empty_pickle", b"", "no opcode")
    raw("stop_with_nothing", pickle(b""), "STOP on an empty stack")
    raw("two_values_left", pickle(EMPTY_DICT + EMPTY_LIST), "STOP with two values", verdict="either")
    raw("bytes_after_stop", pickle(EMPTY_DICT) + b"junk", "python ignores them", verdict="either")
    raw("append_without_list", pickle(number(1) + b"a"), "stack underflow")
    raw("appends_without_mark", pickle(EMPTY_LIST + number(1) + b"e"), "no MARK")
    raw("setitem_on_a_list", pickle(EMPTY_LIST + text("a") + number(1) + b"s"), "not a dict")
    raw("setitems_odd", pickle(EMPTY_DICT + MARK + text("a") + b"u"), "a key without a value")
    raw("pop_too_far", pickle(b"0"), "stack underflow")
    raw("text_of_4_gigabytes", b"\x80\x02X\xff\xff\xff\xffabc.", "BINUNICODE longer than the file")
    raw("text_of_2_to_the_63", b"\x80\x04\x8d" + struct.pack("<Q", 1 << 63) + b"abc.", "BINUNICODE8")
    raw("text_not_utf_8", pickle(b"X\x02\x00\x00\x00\xff\xfe"), "not UTF-8")
    raw("bytearray_of_2_to_the_60", b"\x80\x05\x96" + struct.pack("<Q", 1 << 60) + b"abc.", "BYTEARRAY8, protocol 5")
    raw("out_of_band_buffer", b"\x80\x05\x97.", "NEXT_BUFFER, protocol 5")
    raw("frame_longer_than_the_file", b"\x80\x04\x95" + struct.pack("<Q", 1 << 40) + EMPTY_DICT + b".", "FRAME, protocol 4")
    raw("frame_inside_a_frame", b"\x80\x04\x95" + struct.pack("<Q", 20) + b"\x95" + struct.pack("<Q", 2) + EMPTY_DICT + b".", "FRAME in FRAME", verdict="either")
    raw("protocol_99", b"\x80\x63" + EMPTY_DICT + b".", "no such protocol")
    raw("protocol_0_text", b"(dp0\nS'w'\np1\nI1\ns.", "a pickle of 1996", verdict="either")
    raw("int_line_of_3000_digits", b"\x80\x02I" + b"9" * 3000 + b"\n.", "a decimal number of 3,000 digits")
    raw("long4_negative", b"\x80\x02\x8b\xff\xff\xff\xff.", "LONG4 of -1 bytes")
    raw("long4_huge", b"\x80\x02\x8b\xff\xff\xff\x7f.", "LONG4 of 2 GiB")
    raw("unknown_opcode", pickle(b"\xfe"), "no such opcode")
    raw("global_without_newline", b"\x80\x02ctorch", "cut in a name")


def archives(put):
    good = pt(state(tensor()))
    put("cut_in_half", good[: len(good) // 2], "no directory")
    put("cut_by_one_byte", good[:-1], "the directory's end is cut")
    put("first_byte_wrong", b"X" + good[1:], "not a zip at its start", verdict="either")
    put("not_a_zip", b"hello, I am no archive" * 10, "no zip")
    put("empty_file", b"", "no bytes")
    put("no_pickle", write_zip(Entry("archive/version", b"3\n")), "no data.pkl")
    put("two_pickles", write_zip(Entry("a/data.pkl", pickle(EMPTY_DICT)), Entry("b/data.pkl", pickle(EMPTY_LIST))), "which one?")
    put("duplicate_pickle", pt(EMPTY_DICT, more=[Entry("archive/data.pkl", pickle(EMPTY_LIST))]), "the same name twice")
    put("duplicate_data", pt(state(tensor()), more=[Entry("archive/data/0", bytes(range(64)))]), "the same name twice")
    put("local_name_differs", write_zip(Entry("archive/data.pkl", pickle(EMPTY_DICT), local_name="archive/dato.pkl")), "directory and header disagree")
    put("entry_leaves_the_archive", pt(state(tensor()), more=[Entry("../../evil", b"x")]), "a path as a name")
    put("entries_overlap", pt(state(tensor()), more=[Entry("archive/data/1", ZEROS, at=2), Entry("archive/data/2", ZEROS, at=1, size=6, packed=6)]), "two names for one entry")
    put("entry_points_behind_the_file", pt(state(tensor()), more=[Entry("archive/data/1", ZEROS, at=1 << 30)]), "offset of 1 GiB")
    put("crc_wrong", write_zip(Entry("archive/data.pkl", pickle(state(tensor()))), Entry("archive/data/0", ZEROS, crc=1)), "damaged data", verdict="either")
    put("encrypted", write_zip(Entry("archive/data.pkl", pickle(EMPTY_DICT), flags=1)), "flag of encryption")
    put("deflated_pickle", write_zip(deflated("archive/data.pkl", pickle(EMPTY_DICT))), "torch stores, and reads, without compression", verdict="either")
    put("deflate_bomb", write_zip(deflated("archive/data.pkl", pickle(state(tensor()))), deflated("archive/data/0", bytes(1 << 20))), "1 MiB from 1 KB where 64 bytes are due",
        verdict="either")
    put("size_claims_16_gigabytes", write_zip(Entry("archive/data.pkl", pickle(state(tensor((1 << 32,), (1,), held=storage(numel=number(1 << 32)))))),
                                             Entry("archive/data/0", ZEROS, size=1 << 34, packed=1 << 34)), "zip64 sizes beyond the file")
    put("count_claims_65535_entries", write_zip(Entry("archive/data.pkl", pickle(EMPTY_DICT)), count=65535), "the directory holds one")


def saved_by_torch(put):
    """What torch.save itself writes, and a reader must read."""
    import collections

    import torch

    base = torch.arange(24, dtype=torch.float32)
    matrix = base.reshape(4, 6)
    shared = dict(all=matrix, transposed=matrix.T, corner=matrix[1:3, 2:5], column=matrix[:, 1], one=base[5], empty=torch.zeros(0, 3), expanded=base[:1].expand(3))
    kinds = dict(f64=torch.float64, f32=torch.float32, f16=torch.float16, bf16=torch.bfloat16, i64=torch.int64, i32=torch.int32, i16=torch.int16,
                 i8=torch.int8, u8=torch.uint8, bool=torch.bool)
    typed = {label: torch.tensor([0, 1, 2, 3]).to(kind) for label, kind in kinds.items()}
    tree = dict(model=collections.OrderedDict(w=torch.nn.Parameter(matrix.clone())), step=7, big=1 << 40, lr=0.5, name="x", none=None, yes=True,
                shape=(1, 2), several=[1, "two", (3.0,)], bytes=b"ab")
    shapes = lambda tensors: {label: list(t.shape) for label, t in tensors.items()}

    def save(label, value, why, holds, verdict="read", **more):
        stream = io.BytesIO()
        torch.save(value, stream, **more)
        put(label, stream.getvalue(), why, verdict=verdict, holds=holds)

    save("read_views", shared, "views of `all`, which is 0 to 23: all.T, all[1:3, 2:5], all[:, 1], the value 5, none, 0 three times", shapes(shared))
    save("read_types", typed, "every plain type; each holds 0, 1, 2, 3 (bool: false, true, true, true)", shapes(typed))
    save("read_tree", tree, "values that are not tensors, a Parameter, an OrderedDict", {"model.w": [4, 6]})
    for protocol in (3, 4, 5):
        save(f"read_protocol_{protocol}", dict(w=matrix.clone()), f"pickle protocol {protocol}, 0 to 23" + (protocol > 3) * " (torch's own safe reader refuses it)", {"w": [4, 6]}, pickle_protocol=protocol,
             verdict="read" if protocol == 3 else "either")
    torch.manual_seed(0)
    module = torch.nn.Linear(3, 2)
    torch.nn.init.constant_(module.weight, 0.25), torch.nn.init.constant_(module.bias, -1)
    save("read_state_dict", module.state_dict(), "OrderedDict with _metadata (BUILD)", {"weight": [2, 3], "bias": [2]})
    stream = io.BytesIO()
    torch.save(dict(w=matrix.clone()), stream, _use_new_zipfile_serialization=False)
    put("legacy_without_zip", stream.getvalue(), "torch before 1.6: pickles one after another, no zip", verdict="either", holds={"w": [4, 6]})
    put("big_endian", write_zip(Entry("archive/data.pkl", pickle(state(tensor()))), Entry("archive/byteorder", b"big"),
                                Entry("archive/data/0", struct.pack(">16f", *range(16)))), "byteorder says big: 0 to 15", verdict="either", holds={"w": [4, 4]})
    save("whole_module", torch.nn.Linear(3, 2), "a pickled module, not its state dict", {})


def fill(shelf):
    def put(label, data, why, verdict="refuse", **more):
        if label == "whole_module":
            verdict, more = "refuse", dict(word="torch.nn.modules.linear.Linear")
        shelf.put(f"pt/{label}.pt", data, verdict, why, **more)

    for group in (commands, memo, tensors, machine, archives, saved_by_torch):
        group(put)
