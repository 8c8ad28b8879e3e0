"""Tables → sentences for a clinician, by rules that are tested one by one."""
