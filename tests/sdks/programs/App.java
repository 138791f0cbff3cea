import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;

class App {
    public static void main(String[] words) throws Exception {
        var key = "Bearer " + System.getenv("GITHUB_TOKEN");
        var asked = HttpRequest.newBuilder(URI.create("https://api.github.com/user")).header("Authorization", key).build();
        System.out.println(HttpClient.newHttpClient().send(asked, BodyHandlers.ofString()).body());
    }
}
