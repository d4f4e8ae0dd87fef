"""Checkpoints to and from elsewhere: a directory, an archive with a hash, the Hugging Face Hub.

    engram push checkpoints/dnc-copy PLACE              engram pull PLACE --out checkpoints

    models/ or models/name      a directory             parts     the files of a checkpoint, checked
    name.tar.gz                 an archive              archive   the same in one file, the same bytes each time
    https://.../name.tar.gz     an archive elsewhere    download
    hf://owner/name[@revision]  a repository of a hub   hub

Only what serving needs travels, and no pickle: what is pulled is checked by its hashes before it takes its name.
"""
