"""The kernels: functions of the loop language, and how they are launched."""
