package lambda_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"

	"github.com/gpulease/gpulease/lambda"
)

// exampleCloud stands for the service, so that the examples run without it.
func exampleCloud() *httptest.Server {
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/api/v1/instance-types":
			_, _ = io.WriteString(w, documentTypes)
		case "/api/v1/instance-operations/launch":
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, envelope("instance-operations/launch/insufficient-capacity", "Not enough capacity to fulfill launch request.", ""))
		case "/api/v1/instance-operations/terminate":
			_, _ = io.WriteString(w, `{"data":{"terminated_instances":[`+documentInstance+`]}}`)
		default:
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, envelope("global/object-does-not-exist", "Specified instance does not exist.", ""))
		}
	}))
}

func Example() {
	cloud := exampleCloud()
	defer cloud.Close()
	ctx := context.Background()

	key, err := lambda.ParseKey("secret_example_0123.abcd") // from the environment, say
	if err != nil {
		fmt.Println(err)
		return
	}
	client, err := lambda.New(key, lambda.WithBaseURL(cloud.URL+"/api/v1")) // without the option: the real service
	if err != nil {
		fmt.Println(err)
		return
	}
	offers, err := client.InstanceTypes(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, o := range offers {
		for _, r := range o.Regions {
			fmt.Printf("%s in %s for %d cents an hour\n", o.InstanceType.Name, r.Name, o.InstanceType.PriceCentsPerHour)
		}
	}
	fmt.Println(key)
	// Output:
	// gpu_8x_example in us-west-1 for 1592 cents an hour
	// [redacted]
}

// What to do after a launch depends on what its error proves.
func ExampleClient_Launch() {
	cloud := exampleCloud()
	defer cloud.Close()
	key, _ := lambda.ParseKey("secret_example_0123.abcd")
	client, _ := lambda.New(key, lambda.WithBaseURL(cloud.URL+"/api/v1"))

	id, err := client.Launch(context.Background(), lambda.LaunchRequest{
		Region:       "us-west-1",
		InstanceType: "gpu_8x_example",
		SSHKeyName:   "my-key",
		Name:         "train-7f3a", // unique, so that a launch whose answer was lost can be found
		Image:        lambda.ImageRef{Family: "lambda-stack-24-04"},
		UserData:     lambda.NewSecret("#cloud-config\n"),
	})
	switch {
	case err == nil:
		fmt.Println("launched", id)
	case !lambda.IsNothingHappened(err):
		fmt.Println("look for train-7f3a before asking again:", err)
	case lambda.IsCode(err, lambda.CodeInsufficientCapacity):
		fmt.Println("full; try another region or wait")
	default:
		fmt.Println("refused:", err)
	}
	// Output: full; try another region or wait
}

// An instance has ended when it is terminated or unknown, not when terminate was accepted.
func ExampleClient_Terminate() {
	cloud := exampleCloud()
	defer cloud.Close()
	key, _ := lambda.ParseKey("secret_example_0123.abcd")
	client, _ := lambda.New(key, lambda.WithBaseURL(cloud.URL+"/api/v1"))
	ctx := context.Background()

	const id = "0920582c7ff041399e34823a0be62549"
	if _, err := client.Terminate(ctx, id); err != nil {
		fmt.Println(err)
		return
	}
	instance, err := client.Instance(ctx, id)
	switch {
	case lambda.IsNotFound(err):
		fmt.Println("gone")
	case err != nil:
		fmt.Println("not known:", err)
	case instance.Status == lambda.StatusTerminated:
		fmt.Println("ended")
	default:
		fmt.Println("still billed:", instance.Status)
	}
	// Output: gone
}

// One limiter for all clients of an account keeps its limits; a gate in a shared store keeps them across processes.
func ExampleNewPacer() {
	gate := lambda.NewGate(nil) // in real use: an implementation in a database
	pacer := lambda.NewPacer(lambda.PacerConfig{Gate: gate})
	key, _ := lambda.ParseKey("secret_example_0123.abcd")
	client, err := lambda.New(key, lambda.WithLimiter(pacer))
	fmt.Println(client, err)
	// Output: lambda client for https://cloud.lambda.ai/api/v1 <nil>
}
