"""The record of a run (JSON, JSON Lines, CSV) and its conversion to the formats of others."""

from cpnpose.formats.csv_writer import CsvWriter
from cpnpose.formats.frame_record import ImageResult, quantize
from cpnpose.formats.header import Header
from cpnpose.formats.json_writer import JsonWriter
from cpnpose.formats.jsonl_record import JsonlWriter, ResumePoint
from cpnpose.formats.record_reader import read_record

__all__ = ["CsvWriter", "Header", "ImageResult", "JsonWriter", "JsonlWriter", "ResumePoint", "quantize", "read_record"]
