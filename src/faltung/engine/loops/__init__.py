"""The loop language: in which every kernel is written, printed, interpreted and translated."""
