package lambda_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lambda"
)

func TestInstancesReadsTheDocumentsExample(t *testing.T) {
	f := always(200, `{"data":[`+documentInstance+`,`+leanInstance+`]}`)
	got, err := newClient(t, f).Instances(background(t))
	require.NoError(t, err)
	require.Len(t, got, 2)

	full, lean := got[0], got[1]
	require.Equal(t, "0920582c7ff041399e34823a0be62549", full.ID)
	require.Equal(t, lambda.StatusActive, full.Status)
	require.Equal(t, lambda.Region{Name: "us-west-1", Description: "California, USA"}, full.Region)
	require.Equal(t, 1592, full.InstanceType.PriceCentsPerHour)
	require.Equal(t, lambda.Specs{VCPUs: 124, MemoryGiB: 1800, StorageGiB: 6144, GPUs: 8}, full.InstanceType.Specs)
	require.Equal(t, []lambda.Tag{{Key: "key1", Value: "value1"}, {Key: "key2", Value: "value2"}}, full.Tags)
	require.Equal(t, []lambda.FirewallRulesetRef{{ID: "c4d291f47f9d436fa39f58493ce3b50d"}}, full.FirewallRulesets)
	require.Equal(t, "/lambda/nfs/my-filesystem", full.FileSystemMounts[0].MountPoint)
	require.Equal(t, "03b7d30d9d3e4d8fa41657bc0d478c1b", full.JupyterToken.Reveal())
	require.True(t, full.Actions.Terminate.Available)
	require.Equal(t, "vm-is-too-old", full.Actions.ColdReboot.ReasonCode)

	require.Equal(t, lambda.StatusBooting, lean.Status)
	require.Empty(t, lean.IP)
	require.Nil(t, lean.FirstHealthy)
	require.Nil(t, lean.Image)
	require.True(t, lean.JupyterURL.IsZero())

	r := f.requests()[0]
	require.Equal(t, "GET /api/v1/instances ?", r.method+" "+r.path+" ?"+r.query)
	require.Equal(t, "Bearer "+testKey, r.header.Get("Authorization"))
	require.Equal(t, lambda.DefaultUserAgent, r.header.Get("User-Agent"))
	require.Empty(t, r.header.Get("Content-Type"))
}

func TestInstanceTakesNullAbsentAndNewerFields(t *testing.T) {
	healthy := time.Date(2026, 9, 30, 12, 0, 1, 500_000_000, time.UTC)
	for name, test := range map[string]struct {
		more string
		want func(*testing.T, lambda.Instance)
	}{
		"nulls": {`"name":null,"ip":null,"private_ip":null,"hostname":null,"jupyter_token":null,"jupyter_url":null,"tags":null,
			"file_system_mounts":null,"firewall_rulesets":null,"first_healthy":null,"image":null`,
			func(t *testing.T, i lambda.Instance) {
				require.Empty(t, i.Name+i.IP+i.PrivateIP+i.Hostname+i.JupyterToken.Reveal()+i.JupyterURL.Reveal())
				require.Empty(t, i.Tags)
				require.Nil(t, i.FirstHealthy)
				require.Nil(t, i.Image)
			}},
		"newer": {`"first_healthy":"2026-09-30T12:00:01.5Z","image":{"id":"x","family":"lambda-stack-24-04"},"workspace_id":"w",
			"something_new":{"a":[1]}`,
			func(t *testing.T, i lambda.Instance) {
				require.Equal(t, healthy, *i.FirstHealthy)
				require.Equal(t, lambda.ImageRef{ID: "x", Family: "lambda-stack-24-04"}, *i.Image)
				require.Equal(t, "w", i.WorkspaceID)
			}},
		"time without a zone": {`"first_healthy":"2026-09-30T12:00:01.5"`,
			func(t *testing.T, i lambda.Instance) { require.Equal(t, healthy, *i.FirstHealthy) }},
		"newer fields of another kind": {`"first_healthy":12,"image":"ubuntu","workspace_id":7,"is_reserved":"no"`,
			func(t *testing.T, i lambda.Instance) {
				require.Nil(t, i.FirstHealthy)
				require.Nil(t, i.Image)
				require.Empty(t, i.WorkspaceID)
				require.False(t, i.IsReserved)
			}},
	} {
		t.Run(name, func(t *testing.T) {
			body := `{"data":` + strings.Replace(leanInstance, `{`, `{`+test.more+`,`, 1) + `}`
			i, err := newClient(t, always(200, body)).Instance(background(t), "1920582c7ff041399e34823a0be62549")
			require.NoError(t, err)
			test.want(t, i)
		})
	}
}

func TestInstanceKeepsAnUnknownStatus(t *testing.T) {
	body := `{"data":` + strings.Replace(leanInstance, `"booting"`, `"alert"`, 1) + `}`
	i, err := newClient(t, always(200, body)).Instance(background(t), "1920582c7ff041399e34823a0be62549")
	require.NoError(t, err)
	require.Equal(t, lambda.Status("alert"), i.Status)
}

func TestInstanceRefusesAnotherOne(t *testing.T) {
	_, err := newClient(t, always(200, `{"data":`+leanInstance+`}`)).Instance(background(t), "0920582c7ff041399e34823a0be62549")
	require.ErrorContains(t, err, "another instance came back")
}

func TestInstancesFollowsPages(t *testing.T) {
	f := script(
		says(200, `{"data":[`+documentInstance+`],"page_token":"a b+/="}`),
		says(200, `{"data":[`+documentInstance+`,`+leanInstance+`],"page_token":null}`),
	)
	got, err := newClient(t, f).Instances(background(t))
	require.NoError(t, err)
	require.Len(t, got, 2, "an instance that shows up on two pages is one")
	require.Equal(t, "page_token=a+b%2B%2F%3D", f.requests()[1].query)
}

// A listing that shows an instance twice, ended and running, must not be taken for its end.
func TestInstancesKeepsWhatMayBeBilled(t *testing.T) {
	for _, order := range []string{`{"id":"a","status":"terminated"},{"id":"a","status":"active"}`, `{"id":"a","status":"active"},{"id":"a","status":"terminated"}`} {
		got, err := newClient(t, always(200, `{"data":[`+order+`]}`)).Instances(background(t))
		require.NoError(t, err)
		require.Len(t, got, 1)
		require.Equal(t, lambda.StatusActive, got[0].Status)
	}
}

func TestInstancesNeverReturnsLessThanAll(t *testing.T) {
	for name, test := range map[string]struct {
		f    *fake
		want string
	}{
		"no data":             {always(200, `{}`), "no data"},
		"null data":           {always(200, `{"data":null}`), "not a list"},
		"an object":           {always(200, `{"data":{}}`), "not a list"},
		"an instance sans id": {always(200, `{"data":[{"status":"active"}]}`), "no id"},
		"a broken answer":     {always(200, `{"data":[`), "not the API's"},
		"empty":               {always(200, ``), "not the API's"},
		"a page of HTML":      {always(200, `<html>`, "Content-Type", "text/html"), "text/html page"},
		"second page fails":   {script(says(200, `{"data":[`+leanInstance+`],"page_token":"a"}`), says(502, `bad gateway`)), "502"},
		"pages go round":      {always(200, `{"data":[],"page_token":"a"}`), "repeats a page"},
		"token not a string":  {always(200, `{"data":[],"page_token":3}`), "page_token"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := newClient(t, test.f).Instances(background(t))
			require.ErrorContains(t, err, test.want)
			require.Nil(t, got)
			require.True(t, lambda.IsNothingHappened(err), "a read changes nothing")
		})
	}
	t.Run("an empty list is what the service says is one", func(t *testing.T) {
		got, err := newClient(t, always(200, `{"data":[],"page_token":""}`)).Instances(background(t))
		require.NoError(t, err)
		require.NotNil(t, got)
		require.Empty(t, got)
	})
}

func TestIDsCannotLeadElsewhere(t *testing.T) {
	f := always(200, `{"data":{}}`)
	c := newClient(t, f)
	for _, id := range []string{"", ".", "..", "a/b", "a?b", "a#b", "a b", "a\nb", "%2e%2e", `a\b`, "é", strings.Repeat("a", 129)} {
		_, err := c.Instance(background(t), id)
		require.Error(t, err, "get %q", id)
		_, err = c.Terminate(background(t), id)
		require.Error(t, err, "terminate %q", id)
		require.True(t, lambda.IsNothingHappened(err))
		require.Error(t, c.DeleteSSHKey(background(t), id), "delete %q", id)
	}
	_, err := c.Terminate(background(t))
	require.ErrorContains(t, err, "no instance is named")
	require.Empty(t, f.requests())
}

func TestTerminate(t *testing.T) {
	ending := strings.Replace(documentInstance, `"status":"active"`, `"status":"terminating"`, 1)
	f := always(200, `{"data":{"terminated_instances":[`+ending+`]}}`)
	got, err := newClient(t, f).Terminate(background(t), "0920582c7ff041399e34823a0be62549", "1920582c7ff041399e34823a0be62549")
	require.NoError(t, err)
	require.Len(t, got, 1)
	require.Equal(t, lambda.StatusTerminating, got[0].Status)
	r := f.requests()[0]
	require.Equal(t, http.MethodPost+" /api/v1/instance-operations/terminate", r.method+" "+r.path)
	require.JSONEq(t, `{"instance_ids":["0920582c7ff041399e34823a0be62549","1920582c7ff041399e34823a0be62549"]}`, r.body)
	require.Equal(t, "application/json", r.header.Get("Content-Type"))
}
