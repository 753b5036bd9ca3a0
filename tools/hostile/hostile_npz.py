"""Hostile `.npz` files: numpy's arrays by hand, in a zip."""

import io
import struct

import numpy as np
from hostile_zip import Entry, deflate, deflated, write_zip


def npy(descr="'<f4'", fortran=False, shape="(4,)", data=bytes(16), header=None, version=(1, 0), length=None):
    header = (header or f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}").encode()
    width = 2 if version[0] == 1 else 4
    header += b" " * (-(len(header) + 9 + width) % 64) + b"\n"
    size = struct.pack("<H" if width == 2 else "<I", len(header) if length is None else length)
    return b"\x93NUMPY" + bytes(version) + size + header + data


def one(array, label="w.npy"):
    return write_zip(Entry(label, array))


def arrays(put):
    bad = lambda label, why, **more: put(label, one(npy(**more)), why)
    bad("header_longer_than_the_entry", "the header's length is 60,000", length=60000)
    bad("header_length_zero", "no header", length=0)
    bad("header_length_cuts_the_header", "the header's length is 20", length=20)
    bad("header_of_4_gigabytes", "version 2, length 2^32 - 1", version=(2, 0), length=0xFFFFFFFF)
    bad("header_is_code", "an expression", header="__import__('os').system('touch /tmp/pwned-by-an-npy')")
    bad("header_is_a_list", "not a dict", header="['<f4', False, (4,)]")
    bad("header_without_shape", "a key is missing", header="{'descr': '<f4', 'fortran_order': False, }")
    bad("header_with_more_keys", "numpy refuses them", header="{'descr': '<f4', 'fortran_order': False, 'shape': (4,), 'more': 1, }")
    bad("header_with_a_key_twice", "which shape?", header="{'descr': '<f4', 'fortran_order': False, 'shape': (4,), 'shape': (2,), }")
    bad("header_nested_deeply", "recursion", header="{'descr': '<f4', 'fortran_order': False, 'shape': " + "(" * 3000 + ")" * 3000 + ", }")
    bad("object_type", "pickled objects inside", descr="'|O'", data=b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00id\x85R.")
    bad("record_type", "fields", descr="[('a', '<f4'), ('b', '<i4')]", data=bytes(32))
    bad("text_type", "texts", descr="'<U4'", data=bytes(64))
    bad("complex_type", "complex numbers", descr="'<c8'", data=bytes(32))
    bad("unknown_type", "no such type", descr="'<f3'")
    bad("void_type", "raw bytes (how numpy stores bf16)", descr="'|V2'", data=bytes(8))
    bad("shape_negative", "negative", shape="(-4,)")
    bad("shape_overflows", "2^80 values", shape="(1099511627776, 1099511627776)")
    bad("shape_is_huge", "4 TiB in a 1 KB file", shape="(1099511627776,)")
    bad("shape_of_text", "not numbers", shape="('4',)")
    bad("shape_is_a_number", "not a tuple", shape="4")
    bad("shape_of_a_number_too_long", "40 digits", shape=f"({'9' * 40},)")
    bad("data_too_short", "12 of 16 bytes", data=bytes(12))
    bad("version_9", "no such version", version=(9, 0))
    put("magic_wrong", one(b"\x93NUMPX" + npy()[6:]), "no array")
    put("entry_empty", one(b""), "no bytes")
    put("data_too_long", one(npy(data=bytes(20))), "20 bytes where 16 are due", verdict="either")
    put("flags_as_numbers", one(npy(header="{'descr': '<f4', 'fortran_order': 0, 'shape': (4,), }")), "0 for False", verdict="either")


def archives(put):
    good = npy()
    put("absolute_name", one(good, "/etc/passwd.npy"), "a path as a name")
    put("name_leaves_the_archive", one(good, "../../w.npy"), "a path as a name")
    put("name_with_a_backslash", one(good, "..\\w.npy"), "a path elsewhere")
    put("name_with_a_zero_byte", one(good, "w\0.npy"), "cut in C", verdict="either")
    put("name_without_ending", one(good, "w"), "numpy names it all the same", verdict="either")
    put("duplicate_names", write_zip(Entry("w.npy", good), Entry("w.npy", npy(data=b"\1" * 16))), "which one?")
    put("local_name_differs", write_zip(Entry("w.npy", good, local_name="v.npy")), "directory and header disagree")
    put("cut_in_half", one(good)[:80], "no directory")
    put("cut_by_one_byte", one(good)[:-1], "the directory's end is cut")
    put("encrypted", write_zip(Entry("w.npy", good, flags=1)), "flag of encryption")
    put("method_lzma", write_zip(Entry("w.npy", good, 14)), "a method that numpy does not write", word="14")
    put("deflate_garbage", write_zip(Entry("w.npy", b"\xff" * 60, 8, size=len(good))), "no deflate stream")
    put("deflate_ends_early", write_zip(Entry("w.npy", deflate(good)[:-20], 8, size=len(good))), "the stream is cut")
    put("crc_wrong", write_zip(Entry("w.npy", good, crc=1)), "damaged data")
    zeros = bytes(1_000_000)
    put("bomb_honest", write_zip(deflated("w.npy", npy(shape="(250000,)", data=zeros))), "1 MB of zeros in 1.2 KB, and it says so", verdict="read", holds={"w": [250000]})
    put("bomb_understated", write_zip(deflated("w.npy", good + zeros, size=len(good))), "says 144 bytes, inflates to 1 MB")
    put("size_understated_within_the_header", write_zip(deflated("w.npy", npy(version=(2, 0)), size=11)), "says 11 bytes, inflates to more; 12 precede the header")
    put("bomb_overstated", write_zip(deflated("w.npy", npy(shape="(1073741824,)", data=zeros), size=(4 << 30) + 128)), "says 4 GiB, inflates to 1 MB")
    put("bomb_of_one_entry_300_times", write_zip(deflated("a.npy", npy(shape="(250000,)", data=zeros)), *(
        deflated(f"a{i}.npy", npy(shape="(250000,)", data=zeros), at=0) for i in range(300))), "300 names for one entry: 300 MB")
    put("entry_points_behind_the_file", write_zip(Entry("w.npy", good), Entry("v.npy", good, at=1 << 30)), "offset of 1 GiB")
    put("entries_overlap_by_half", write_zip(Entry("w.npy", good + one(good)), Entry("v.npy", good, at=40)), "an entry inside an entry")
    put("count_claims_65535_entries", write_zip(Entry("w.npy", good), count=65535), "the directory holds one")
    put("directory_hides_an_entry", write_zip(Entry("w.npy", good), Entry("v.npy", good, hidden=True)), "only the directory counts", verdict="read", holds={"w": [4]})
    put("bytes_before_the_zip", write_zip(Entry("w.npy", good), prefix=b"#!/bin/sh\nexit 0\n"), "a script in front", verdict="either", holds={"w": [4]})
    put("comment_with_a_second_end", write_zip(Entry("w.npy", good), comment=b"PK\x05\x06" + bytes(18)), "two directory ends", verdict="either")


def saved_by_numpy(put):
    """What numpy itself writes, or reads without a word."""
    def save(label, why, how=np.savez, **made):
        stream = io.BytesIO()
        how(stream, **made)
        put(label, stream.getvalue(), why, verdict="read", holds={name: list(a.shape) for name, a in made.items()})

    matrix = np.arange(24, dtype="<f4").reshape(4, 6)
    save("read_stored", "0 to 23", w=matrix)
    save("read_deflated", "0 to 23", np.savez_compressed, w=matrix, v=matrix[0])
    save("read_fortran_order", "w[i][j] = 6 i + j, stored column by column", w=np.asfortranarray(matrix))
    save("read_big_endian", "0 to 23, >f4 and >f8", w=matrix.astype(">f4"), v=matrix.astype(">f8"))
    save("read_types", "0, 1, 2, 3 (bool: false, true, true, true)", **{kind: np.arange(4).astype(kind) for kind in (
        "float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "uint16", "uint32", "uint64", "bool")})
    save("read_shapes", "of no dimension, of no value", scalar=np.float32(3.5), empty=np.zeros((0, 5), "<f4"))
    put("read_version_2", one(npy(version=(2, 0))), "header length in 4 bytes", verdict="read", holds={"w": [4]})
    put("read_version_3", one(npy(version=(3, 0))), "header in UTF-8", verdict="read", holds={"w": [4]})
    put("read_other_spelling", one(npy(header='{"shape":(4 ,),"fortran_order":False,"descr":"<f4"}')), "other order, quotes and blanks", verdict="read", holds={"w": [4]})


def fill(shelf):
    def put(label, data, why, verdict="refuse", **more):
        shelf.put(f"npz/{label}.npz", data, verdict, why, **more)

    for group in (arrays, archives, saved_by_numpy):
        group(put)
