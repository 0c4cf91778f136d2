// Package machine is a simulated GPU machine: an SSH host on a loopback address
// of its own that runs real commands of this host in a home directory of its own.
//
// It stands in for an instance of a GPU cloud wherever one has to be reached over
// SSH: it lets in one user by public key, shows a host key that cloud-init may
// replace, reports its GPUs through an emulated nvidia-smi, and can be told to
// fail. It answers as OpenSSH does where a client can tell the difference: streams
// are kept apart and end on their own, a command outlives its connection, its exit
// status arrives before its last output if something else holds the output open,
// at most ten sessions share a connection, and only LANG and LC_* may be set.
//
//	m, err := machine.Start(ctx, machine.Config{
//		ID:             "0123abcd",
//		Addr:           machine.Loopback(7) + ":2222",
//		AuthorizedKeys: []ssh.PublicKey{key},
//		UserData:       "#cloud-config\n…",
//		GPU:            machine.GPU{Count: 1, Name: "NVIDIA A10", MemoryMiB: 23028},
//	})
//	defer m.Close()
//
// It is not a sandbox. Commands run as the user of this process, see its files and
// its network, and only agree to keep to the home directory. What is marked and
// ended is every process that they start: nothing outlives [Machine.Close].
//
// It does not allocate pseudo-terminals, forward agents, X11 or remote ports, or
// isolate ports: two machines whose commands listen on 127.0.0.1 share its ports.
// Paths below / in user_data are kept under the machine's own directory, where
// commands find them as $GPULEASE_SIM_ROOT.
package machine
