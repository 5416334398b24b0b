// Package kubernetes_test builds the manifests of deploy as kustomize does, and reads each of them as strictly as an API server.
package kubernetes_test

import (
	"bufio"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

const folder = "../../../deploy/kubernetes/"

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// build is what kustomize makes of a folder: manifests by kind.
func build(t *testing.T, name string) map[string]string {
	t.Helper()
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), folder+name)
	must(t, err)
	out := map[string]string{}
	for _, r := range resources.Resources() {
		text, err := r.AsYAML()
		must(t, err)
		out[r.GetKind()] = string(text)
	}
	return out
}

// podMonitor and scaledObject are the members of custom resources that are used, as their owners define them:
// prometheus-operator's monitoring/v1 and KEDA's keda/v1alpha1.
type podMonitor struct {
	v1.TypeMeta `json:",inline"`
	Metadata    v1.ObjectMeta `json:"metadata"`
	Spec        struct {
		Selector            v1.LabelSelector `json:"selector"`
		PodMetricsEndpoints []struct {
			Port     string `json:"port"`
			Path     string `json:"path"`
			Interval string `json:"interval"`
		} `json:"podMetricsEndpoints"`
	} `json:"spec"`
}

type scaledObject struct {
	v1.TypeMeta `json:",inline"`
	Metadata    v1.ObjectMeta `json:"metadata"`
	Spec        struct {
		ScaleTargetRef struct {
			Name string `json:"name"`
		} `json:"scaleTargetRef"`
		PollingInterval int32 `json:"pollingInterval"`
		CooldownPeriod  int32 `json:"cooldownPeriod"`
		MinReplicaCount int32 `json:"minReplicaCount"`
		MaxReplicaCount int32 `json:"maxReplicaCount"`
		Triggers        []struct {
			Type     string            `json:"type"`
			Metadata map[string]string `json:"metadata"`
		} `json:"triggers"`
	} `json:"spec"`
}

// kinds are empty objects, by kind.
func kinds() map[string]any {
	return map[string]any{
		"ServiceAccount": new(corev1.ServiceAccount), "ConfigMap": new(corev1.ConfigMap), "Deployment": new(appsv1.Deployment),
		"PodDisruptionBudget": new(policyv1.PodDisruptionBudget), "NetworkPolicy": new(networkingv1.NetworkPolicy),
		"PodMonitor": new(podMonitor), "ScaledObject": new(scaledObject),
	}
}

func TestEveryManifestIsReadStrictly(t *testing.T) {
	for name, own := range map[string]string{"base": "Deployment", "overlays/podmonitor": "PodMonitor", "overlays/keda": "ScaledObject"} {
		manifests := build(t, name)
		if manifests[own] == "" || manifests["Deployment"] == "" {
			t.Errorf("%s has no %s", name, own)
		}
		for kind, text := range manifests {
			object := kinds()[kind]
			if object == nil {
				t.Errorf("%s: kind %s is not known", name, kind)
				continue
			}
			if err := yaml.UnmarshalStrict([]byte(text), object); err != nil {
				t.Errorf("%s: %s: %v", name, kind, err)
			}
		}
	}
}

func deployment(t *testing.T, name string) (d appsv1.Deployment) {
	t.Helper()
	must(t, yaml.UnmarshalStrict([]byte(build(t, name)["Deployment"]), &d))
	return d
}

// TestThePodIsRestricted has the rules of Pod Security admission look at it.
func TestThePodIsRestricted(t *testing.T) {
	pod := deployment(t, "base").Spec.Template
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	must(t, err)
	level := api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}
	for _, result := range evaluator.EvaluatePod(level, &pod.ObjectMeta, &pod.Spec) {
		if !result.Allowed {
			t.Errorf("%s: %s", result.ForbiddenReason, result.ForbiddenDetail)
		}
	}
	container := pod.Spec.Containers[0]
	if context := container.SecurityContext; context.ReadOnlyRootFilesystem == nil || !*context.ReadOnlyRootFilesystem {
		t.Error("the root file system can be written")
	}
	if links := pod.Spec.EnableServiceLinks; links == nil || *links {
		t.Error("variables of services come into the container")
	}
	if token := pod.Spec.AutomountServiceAccountToken; token == nil || *token {
		t.Error("the container gets a token of the API")
	}
	if container.Lifecycle != nil {
		t.Error("the container has a hook")
	}
}

// settings are those of settings.env.
func settings(t *testing.T) map[string]string {
	t.Helper()
	f, err := os.Open(folder + "base/settings.env")
	must(t, err)
	defer func() { _ = f.Close() }()
	out := map[string]string{}
	for scanner := bufio.NewScanner(f); scanner.Scan(); {
		name, value, _ := strings.Cut(scanner.Text(), "=")
		out[name] = value
	}
	return out
}

func TestTheGracePeriodIsTheDrainTimeoutAndHalfAMinute(t *testing.T) {
	drain, err := time.ParseDuration(settings(t)["GOFER_DRAIN_TIMEOUT"])
	must(t, err)
	if got, want := *deployment(t, "base").Spec.Template.Spec.TerminationGracePeriodSeconds, int64((drain + 30*time.Second).Seconds()); got != want {
		t.Errorf("got %d s, want %d", got, want)
	}
}

// TestSecretsAreFiles also follows the names between manifests: settings, volume, port, labels.
func TestSecretsAreFiles(t *testing.T) {
	d := deployment(t, "base")
	spec := d.Spec.Template.Spec
	mount := spec.Containers[0].VolumeMounts[0]
	files := 0
	for name, value := range settings(t) {
		if secret := strings.HasSuffix(name, "_PASSWORD") || strings.HasSuffix(name, "_TOKEN"); secret {
			t.Errorf("%s is a variable", name)
		}
		if strings.HasPrefix(value, "/") {
			files++
			if !strings.HasPrefix(value, mount.MountPath+"/") {
				t.Errorf("%s=%s is not below %s", name, value, mount.MountPath)
			}
		}
	}
	if files < 4 || spec.Volumes[0].Name != mount.Name || spec.Volumes[0].Secret == nil || len(spec.Containers[0].Env) > 0 {
		t.Errorf("got %d files, volume %+v, variables %v", files, spec.Volumes[0], spec.Containers[0].Env)
	}
	if len(spec.Containers[0].EnvFrom) != 1 || !strings.HasPrefix(spec.Containers[0].EnvFrom[0].ConfigMapRef.Name, "gofer-") {
		t.Errorf("got %+v, want the settings of kustomize", spec.Containers[0].EnvFrom)
	}
	var budget policyv1.PodDisruptionBudget
	var network networkingv1.NetworkPolicy
	manifests := build(t, "base")
	must(t, yaml.UnmarshalStrict([]byte(manifests["PodDisruptionBudget"]), &budget))
	must(t, yaml.UnmarshalStrict([]byte(manifests["NetworkPolicy"]), &network))
	for what, labels := range map[string]map[string]string{
		"Deployment": d.Spec.Selector.MatchLabels, "PodDisruptionBudget": budget.Spec.Selector.MatchLabels, "NetworkPolicy": network.Spec.PodSelector.MatchLabels,
	} {
		if len(labels) == 0 {
			t.Errorf("%s selects every pod", what)
		}
		for name, value := range labels {
			if d.Spec.Template.Labels[name] != value {
				t.Errorf("%s selects %s=%s, which the pods do not have", what, name, value)
			}
		}
	}
	if !slices.Contains(network.Spec.PolicyTypes, networkingv1.PolicyTypeEgress) || len(network.Spec.Egress) != 2 {
		t.Errorf("got %d rules of egress, want NATS and DNS", len(network.Spec.Egress))
	}
}

// TestKEDASetsTheNumberOfWorkers compares what the ScaledObject counts with what it is about.
func TestKEDASetsTheNumberOfWorkers(t *testing.T) {
	var scaled scaledObject
	must(t, yaml.UnmarshalStrict([]byte(build(t, "overlays/keda")["ScaledObject"]), &scaled))
	d := deployment(t, "overlays/keda")
	if d.Spec.Replicas != nil || scaled.Spec.ScaleTargetRef.Name != d.Name {
		t.Errorf("got %v replicas of %s, scaled is %s", d.Spec.Replicas, d.Name, scaled.Spec.ScaleTargetRef.Name)
	}
	var counted []string
	for _, trigger := range scaled.Spec.Triggers {
		counted = append(counted, trigger.Metadata["stream"]+" "+trigger.Metadata["consumer"]+" "+trigger.Metadata["lagThreshold"])
	}
	if want := []string{"GOFER_JOBS worker-default 64", "GOFER_RETRIES due-default 64"}; !slices.Equal(counted, want) {
		t.Errorf("got the triggers %q, want %q", counted, want)
	}
}
