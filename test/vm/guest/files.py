#!/usr/bin/python3
"""files.py write DIR COUNT SEED [pace]   makes COUNT files with random content, each synced, and prints their sums
files.py check DIR               compares every file of DIR with the sums that its SUMS file holds

Runs in the guest of the VM tests. A line `sum SHA256 NAME BYTES` is printed only after the file's
fsync returned, so the host may take it as a promise. `pace` waits a little between two files, so that
the host has time to kill the server in between."""
import hashlib, os, random, sys, time

mode, folder = sys.argv[1], sys.argv[2]
if mode == 'write':
    rng, paced = random.Random(int(sys.argv[4])), 'pace' in sys.argv
    os.makedirs(folder, exist_ok=True)
    with open(folder + '/SUMS', 'w') as sums:
        for n in range(int(sys.argv[3])):
            # From empty to 512 KiB, with odd lengths: the last block of a file is rarely full.
            data = rng.randbytes(rng.choice((0, 1, 511, 4096, 4097, 70001, 131072, 300007, 524288)))
            name = 'file-%03d' % n
            with open(folder + '/' + name, 'wb') as f:
                f.write(data); f.flush(); os.fsync(f.fileno())
            line = '%s %s %d' % (hashlib.sha256(data).hexdigest(), name, len(data))
            sums.write(line + '\n'); sums.flush(); os.fsync(sums.fileno())
            print('sum ' + line, flush=True)
            if paced: time.sleep(0.1)
    fd = os.open(folder, os.O_RDONLY); os.fsync(fd); os.close(fd)
elif mode == 'check':
    bad = n = 0
    for line in open(folder + '/SUMS'):
        want, name, length = line.split()
        data = open(folder + '/' + name, 'rb').read()
        n += 1
        if len(data) != int(length) or hashlib.sha256(data).hexdigest() != want:
            bad += 1; print('WRONG ' + name, flush=True)
    print('checked %d files, %d wrong' % (n, bad), flush=True)
    sys.exit(1 if bad or not n else 0)
else:
    sys.exit(__doc__)
